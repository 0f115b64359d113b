"""Who belongs to the fleet: the authority that makes certificates, the journal of what it made, and taking one back."""
