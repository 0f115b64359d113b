"""`make demo`: broker, aggregator, dashboard and one clinic device on this machine, fed with X-rays."""
