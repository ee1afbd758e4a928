"""Radio channels of 3GPP TR 38.901, their rates, what Sionna has of them, and the channels of other packages."""

from neumatc.wireless.channel import Channel
from neumatc.wireless.loaders import from_cir, from_paths
from neumatc.wireless.rates import post_equalisation_noise, sum_rate
from neumatc.wireless.tr38901 import cdl, drop, from_sionna, tdl

__all__ = [
    "Channel",
    "cdl",
    "drop",
    "from_cir",
    "from_paths",
    "from_sionna",
    "post_equalisation_noise",
    "sum_rate",
    "tdl",
]
