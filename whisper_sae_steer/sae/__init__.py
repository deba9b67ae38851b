"""The sparse autoencoder, the formats it is stored in, and where one is found."""
