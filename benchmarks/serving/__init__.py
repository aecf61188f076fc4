"""The server under load, beside other servers, and a simulation of more machines."""
