/** A gRPC service with a call of each kind, for both halves. */
import grpc from "@grpc/grpc-js";
import { fromJSON } from "@grpc/proto-loader";

const text = { fields: { text: { type: "string", id: 1 }, peer: { type: "string", id: 2 } } };
const call = (requestStream: boolean, responseStream: boolean) => ({
  ...{ requestType: "Text", responseType: "Text" },
  requestStream,
  responseStream,
});

/** As protobuf.js writes `.proto` files in JSON. */
const service = {
  nested: {
    Echo: {
      methods: {
        Unary: call(false, false),
        Down: call(false, true),
        Up: call(true, false),
        Both: call(true, true),
      },
    },
    Text: text,
  },
};
// Its types want what protobuf.js fills in.
const definition = fromJSON(service as unknown as Parameters<typeof fromJSON>[0]);

export const Echo = grpc.loadPackageDefinition(definition).Echo as grpc.ServiceClientConstructor;
export { grpc };
