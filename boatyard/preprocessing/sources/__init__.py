"""Where raw rows come from: a kind of file each."""
