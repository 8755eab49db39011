"""Where raw rows come from: a module for each kind of files, called as `data.source` names it."""
