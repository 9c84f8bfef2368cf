"""torch modules on the kernels."""

from tercet.nn.cost import BlockShape, ComputeCost
from tercet.nn.cost_weight import CostWeight
from tercet.nn.gating import ArbitratedEncoder, ArbitratedEncoderLayer
from tercet.nn.streaming import StreamState

__all__ = ["ArbitratedEncoder", "ArbitratedEncoderLayer", "BlockShape", "ComputeCost", "CostWeight", "StreamState"]
