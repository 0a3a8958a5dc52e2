"""Those outside who are shown the checkpoints: witnesses (C2SP tlog-witness), and places to push them to."""
