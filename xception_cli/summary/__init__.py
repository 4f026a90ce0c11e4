"""What teaches Xception: the network counted, drawn and explained."""
