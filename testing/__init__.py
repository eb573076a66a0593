"""The contract that every part keeps, as one call: for parts of one's own as for those that come along.

    from fusebench.testing import check_fusion

    def test_my_fusion_keeps_the_contract():
        check_fusion("my-fusion", layer=3)

Each check makes up small input, runs the part, and raises AssertionError with the promise that is broken.
"""

import fusebench.methods
from fusebench.testing.fusions import check_fusion
from fusebench.testing.guides import check_guide
from fusebench.testing.samplers import check_sampler
from fusebench.testing.transforms import check_transform

_ = fusebench.methods  # importing it registers the parts

__all__ = ["check_fusion", "check_guide", "check_sampler", "check_transform"]
