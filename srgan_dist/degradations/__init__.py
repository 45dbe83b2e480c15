"""The parts that degradations are made of; `srgan_dist.degradations.degradation` puts them together."""
