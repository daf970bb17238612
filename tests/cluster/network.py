"""
The addresses inside the cluster's own network namespace; nothing outside of it ever sees them.

They come from 198.18.0.0/15, which is reserved for benchmarks, so that a mistake reaches nobody's private network.
Because the namespace is the cluster's own, the ports are the usual ones and never taken.
"""

NODE = "healthguard"
NODE_ADDRESS = "198.18.0.1"
NODE_NETWORK = "198.18.0.1/24"
PODS = "198.18.128.0/17"
FAKE_PODS = "198.18.64.0/18"
FAKE_NODE_ADDRESS = "198.18.0.2"
SERVICES = "198.19.0.0/16"
API_SERVICE = "198.19.0.1"
DNS_SERVICE = "198.19.0.10"
API_PORT = 6443
INGRESS_HTTP = 30080
INGRESS_HTTPS = 30443
