"""What several tests share: networks, stand-ins, planted faults, damaged files."""
