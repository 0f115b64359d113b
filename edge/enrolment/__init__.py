"""How a device gets its identity: the enrolment file and its code, and certificates that renew themselves."""
