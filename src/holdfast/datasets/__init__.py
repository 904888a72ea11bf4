"""Tables, arrays and images from files, with splits and digests."""
