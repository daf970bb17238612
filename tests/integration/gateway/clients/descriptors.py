"""Write the messages of a client's own copy of the protocol: each field's number, kind and label."""

import json
import sys

from tritonclient.grpc import service_pb2

WIRE = {}
for message in service_pb2.DESCRIPTOR.message_types_by_name.values():
    for found in (message, *message.nested_types):
        WIRE[found.full_name] = {field.name: [field.number, field.type, field.is_repeated] for field in found.fields}
sys.stdout.write(json.dumps(WIRE) + "\n")
