"""From the network's input to a decision: the bundle that holds the network, its gate, its thresholds."""
