"""The networks of the five publications, our own, and a peer; `export.networks.catalog` lists them."""
