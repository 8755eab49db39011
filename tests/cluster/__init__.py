"""Tests on a real cluster; a package, as some modules have the names of those beside it."""
