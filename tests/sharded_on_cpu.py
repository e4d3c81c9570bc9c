"""A script of this project on CPUs over gloo, as accelerate runs it on GPUs: it shares weights there alone.

accelerate launch --config_file recipes/accelerate/fsdp.yaml tests/sharded_on_cpu.py train.py FLAGS
"""

import runpy
import sys
from pathlib import Path

from accelerate import DistributedType, PartialState

REPOSITORY = Path(__file__).parents[1]
begin = PartialState.__init__


def begin_as_on_gpus(self, *args, **kwargs) -> None:
    is_first = not PartialState._shared_state
    begin(self, *args, **kwargs)
    if is_first and self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = begin_as_on_gpus
    sys.path.insert(0, str(REPOSITORY))
    sys.argv = sys.argv[1:]
    runpy.run_path(str(REPOSITORY / sys.argv[0]), run_name="__main__")
