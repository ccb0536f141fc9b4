// protobuf-es describes descriptor.proto in full to read our own descriptors. The SDK needs a few of its messages and
// fields only: this esbuild plugin leaves the others out, which saves a tenth of the SDK.
import { embedFileDesc } from "@bufbuild/protobuf/codegenv2";
import { file_google_protobuf_descriptor } from "@bufbuild/protobuf/wkt";

const int32Type = 5;
const bytesType = 12;
const enumType = 14;

const needed = {
  FileDescriptorProto: ["name", "package", "dependency", "message_type", "enum_type", "service", "extension", "syntax"],
  DescriptorProto: ["name", "field", "nested_type", "enum_type", "oneof_decl", "extension", "options"],
  FieldDescriptorProto: ["name", "number", "label", "type", "type_name", "oneof_index", "json_name", "proto3_optional"],
  OneofDescriptorProto: ["name"],
  EnumDescriptorProto: ["name", "value"],
  EnumValueDescriptorProto: ["name", "number"],
  MessageOptions: ["map_entry"],
};

export const slimDescriptor = {
  name: "slim-descriptor",
  setup(build) {
    build.onResolve({ filter: /\/descriptor_pb\.js$/ }, ({ importer, resolveDir }) =>
      importer.endsWith("/codegenv2/file.js")
        ? { path: "descriptor", namespace: "slim", pluginData: resolveDir, sideEffects: false }
        : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: "slim" }, ({ pluginData }) => {
      const whole = embedFileDesc(file_google_protobuf_descriptor.proto).boot();
      const messageType = whole.messageType
        .filter((message) => needed[message.name])
        .map((message) => {
          // What is read of enums is read as numbers; lists that are always empty only have to be there.
          const field = message.field
            .filter((f) => needed[message.name].includes(f.name))
            .map((f) => {
              if (f.type === enumType) return { ...f, type: int32Type, typeName: undefined };
              if (f.name === "service" || f.name === "extension") return { ...f, type: bytesType, typeName: undefined };
              return f;
            });
          return { name: message.name, field };
        });
      const slim = { name: whole.name, package: whole.package, messageType, enumType: [] };
      const first = messageType.findIndex((message) => message.name === "FileDescriptorProto");
      return {
        contents: `
          import { boot } from "./boot.js";
          import { messageDesc } from "./message.js";
          const file = /*@__PURE__*/ boot(${JSON.stringify(slim)});
          export const FileDescriptorProtoSchema = /*@__PURE__*/ messageDesc(file, ${first});`,
        loader: "js",
        resolveDir: pluginData,
      };
    });
  },
};
