"""Encoders of texts: the protocol, how texts are cut, and the engines that compute."""
