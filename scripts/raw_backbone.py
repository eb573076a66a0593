"""A backbone that was never tuned for sentences: a small BERT, pre-trained by masked language modelling alone.

    python scripts/raw_backbone.py --texts wikipedia-sentences --data-dir DATA --to raw-bert

Ways of reading layers differ most where nothing has made the last one a sentence embedding, and released models of
that kind are not at hand everywhere. This one has 12 layers, 256 wide with 4 heads, and the vocabulary of
all-MiniLM-L6-v2, which is that of bert-base-uncased; transformers' own Trainer masks 15 % of the tokens of lines of
at most 64. It prints the loss on lines held out, beside that of guessing by frequency, which is what a model has that
learned nothing of contexts: read the two before a board. For a GPU; a processor needs seconds an update.
`run_bench.py --backbone raw-bert` reads the folder.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.study.text_sets import load_texts

LONGEST = 64
HELD_OUT = 2000
Lines = list[dict[str, list[int]]]


def tokenized(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Lines:
    """Ids of each text, special tokens included, cut at `LONGEST`."""
    return [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]]


def guessing(training: Lines, held_out: Lines, special: set[int]) -> float:
    """Cross-entropy in nats a token of the held-out lines under frequencies of the training lines, plus one."""
    seen = Counter(token for line in training for token in line["input_ids"] if token not in special)
    asked = Counter(token for line in held_out for token in line["input_ids"] if token not in special)
    total = sum(seen.values()) + len(seen | asked)
    return -sum(n * math.log((seen[token] + 1) / total) for token, n in asked.items()) / sum(asked.values())


def arguments_of(flags: argparse.Namespace) -> TrainingArguments:
    """Published BERT settings but for the size: AdamW, weight decay 0.01, linear warm-up over a tenth."""
    return TrainingArguments(
        output_dir=str(flags.to / "checkpoints"),
        max_steps=flags.steps,
        per_device_train_batch_size=flags.batch_size,
        per_device_eval_batch_size=flags.batch_size,
        learning_rate=flags.lr,
        weight_decay=0.01,
        warmup_steps=flags.steps // 10,
        logging_steps=max(1, flags.steps // 50),
        save_strategy="no",
        report_to=[],
        seed=flags.seed,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
    )


def main() -> None:
    """Trains, measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help="what --fit takes: a file, or a folder below DATA/train")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    set_seed(flags.seed)
    tokenizer = AutoTokenizer.from_pretrained(find_backbone(DEFAULT).folder)
    texts = list(load_texts(flags.texts, flags.data_dir).texts)
    order = torch.randperm(len(texts)).tolist()
    held_out = tokenized([texts[i] for i in order[:HELD_OUT]], tokenizer)
    training = tokenized([texts[i] for i in order[HELD_OUT:]], tokenizer)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=flags.width,
        num_hidden_layers=flags.layers,
        num_attention_heads=flags.width // 64,
        intermediate_size=4 * flags.width,
        pad_token_id=tokenizer.pad_token_id,
    )
    trainer = Trainer(
        model=BertForMaskedLM(config),
        args=arguments_of(flags),
        train_dataset=training,
        eval_dataset=held_out,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
    )
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    by_frequency = guessing(training, held_out, set(tokenizer.all_special_ids))
    trainer.model.bert.save_pretrained(flags.to)
    tokenizer.save_pretrained(flags.to)
    report = {
        "lines": len(training),
        "steps": flags.steps,
        "loss": round(loss, 3),
        "guessing": round(by_frequency, 3),
    }
    (flags.to / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"loss {loss:.2f} nats a masked token, guessing by frequency {by_frequency:.2f}; in {flags.to}")


if __name__ == "__main__":
    main()
