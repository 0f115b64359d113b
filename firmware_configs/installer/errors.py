"""What ends an installation. Every text is one sentence that says what is wrong and what to do."""


class Refused(Exception):
    """This cannot be done here as it was asked for; nothing was changed, or what was changed is undone. Exit status 2."""


class WentBack(Exception):
    """The new version did not work, and the old one is in service again, or the text says what is. Exit status 1."""
