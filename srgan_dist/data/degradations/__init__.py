"""The parts that degradations are made of; `srgan_dist.data.degrade` puts them together."""
