"""What runs leave, read again: the folder of a run as data, whatever state it is in."""
