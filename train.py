"""accelerate launch train.py --config configs/srgan_x4.yaml [--section.key=value ...]"""

import sys

from srgan_dist.cli import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:], prog="train.py"))
