"""torch modules on the kernels."""

from tercet.nn.cost import BlockShape, ComputeCost
from tercet.nn.gating import ArbitratedEncoder, ArbitratedEncoderLayer

__all__ = ["ArbitratedEncoder", "ArbitratedEncoderLayer", "BlockShape", "ComputeCost"]
