"""The educational part: the network counted, drawn and explained."""
