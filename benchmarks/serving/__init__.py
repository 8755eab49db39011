"""`make bench-serving`: this server and its peers under the same load, side by side, as ratios with their spread."""
