"""One file a zoo: how its files name what they hold, and the same under our names."""
