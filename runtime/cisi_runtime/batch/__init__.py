"""Files and folders of photographs through the network."""
