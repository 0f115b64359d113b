"""The offline package on a Debian system without a network: installed, upgraded, broken off at every step, removed.

The root is made by debootstrap once (two to three minutes), and kept in build/roots.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.commands.by_hand import classify_lines
from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.support.board_device import CONFIG, PROGRAM, ask, bring_enrolment, drop, outbox, serving, unpack
from tests.support.board_root import Board, board, debian_root, layer_of
from tests.support.clinic import small_picture
from tests.support.fleet import Fleet, make_fleet
from tests.support.processes import wait_for
