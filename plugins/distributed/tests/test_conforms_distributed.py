"""The plugin passes the kit that every plugin must pass, and alone does nothing."""

import pytest

from trainbus_distributed import DistributedCallback
from training import ConfigError


def test_distributed_conforms_where_there_is_one_process(assert_plugin_conforms):
    assert_plugin_conforms(DistributedCallback)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"engine": "dp"}, "engine is 'dp'"),
        ({"data": "all"}, "data is 'all'"),
        ({"checkpoint": 1}, "checkpoint is 1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"find_unused_parameters": "no"}, "find_unused_parameters is 'no'"),
        ({"shard_modules": "Block"}, "shard_modules is 'Block'"),
        ({"shard_modules": ["Block"]}, "use engine 'fsdp2', or leave shard_modules"),
        ({"checkpoint": "sharded"}, "use engine 'fsdp2', or leave checkpoint out"),
        (
            {"engine": "fsdp2", "find_unused_parameters": True},
            "use engine 'ddp', or leave find_unused_parameters out",
        ),
    ],
)
def test_an_option_of_another_kind_is_refused(option, says):
    with pytest.raises(ConfigError, match=says):
        DistributedCallback(**option)
