"""The sparse autoencoder, the formats it is stored in, and where one that fits some weights is found."""
