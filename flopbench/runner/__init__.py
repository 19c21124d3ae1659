"""The sweep over a suite's cells, and the worker process that measures one of them."""
