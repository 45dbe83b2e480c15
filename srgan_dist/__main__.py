"""``accelerate launch --module srgan_dist doctor ...``: the commands, on several ranks."""

import sys

from srgan_dist.cli.commands import main

sys.exit(main())
