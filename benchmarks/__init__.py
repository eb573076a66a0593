"""How an encoder is judged; knows nothing of methods."""
