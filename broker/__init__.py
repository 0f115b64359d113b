"""The centre: broker configuration, aggregator, store and dashboard. Imports `edge.contract` and nothing else of `edge`."""
