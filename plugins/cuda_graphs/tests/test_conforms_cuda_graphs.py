"""The plugin passes the kit that every plugin must pass."""

from trainbus_cuda_graphs import CUDAGraphsCallback


def test_cuda_graphs_conforms_where_nothing_can_be_recorded(assert_plugin_conforms):
    assert_plugin_conforms(CUDAGraphsCallback)
