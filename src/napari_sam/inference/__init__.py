"""Running the network: devices, preprocessing, encoding, predicting."""
