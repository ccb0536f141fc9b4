// protobuf-es reads the descriptors of our schemas from base64, which compresses badly, with a description of
// descriptor.proto, which is long. This esbuild plugin writes them as short texts instead, and reads those: a tenth of
// the SDK less.
import { fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const repeated = 3;
const embedded = /fileDesc\("([^"]+)"/;

/** A message as [its name, oneofs and fields, those inside it, enums inside it]; "!" marks the entries of maps. */
function messageText(message, prefix) {
  const field = (f) => {
    const named = f.typeName;
    if (named && !named.startsWith(prefix)) throw new Error(`${named} is of another package`);
    if (f.options || f.defaultValue || f.extendee) throw new Error(`the options of ${f.name} would be lost`);
    const oneof = Object.hasOwn(f, "oneofIndex") ? f.oneofIndex : "";
    const flags = `${f.label === repeated ? "r" : ""}${f.proto3Optional ? "p" : ""}${oneof}`;
    return `${f.name} ${f.number} ${f.type}${named ? named.slice(prefix.length) : ""} ${flags}`.trim();
  };
  const oneofs = message.oneofDecl.map((o) => o.name).join(" ");
  const head = (message.options?.mapEntry ? "!" : "") + message.name;
  return [
    [head, oneofs, ...message.field.map(field)].join(";"),
    message.nestedType.map((m) => messageText(m, prefix)),
    message.enumType.map(enumText),
  ];
}

const enumText = (e) => [e.name, ...e.value.map((v) => `${v.name} ${v.number}`)].join(";");

function fileText(base64) {
  const file = fromBinary(FileDescriptorProtoSchema, base64Decode(base64));
  if (file.syntax !== "proto3") throw new Error(`${file.name} is not proto3`);
  const messages = file.messageType.map((m) => messageText(m, "." + file.package));
  return JSON.stringify([file.name, file.package, messages, file.enumType.map(enumText)]);
}

// What takes the place of protobuf-es's fileDesc for our files.
const reader = `
  import { bootFileDescriptorProto } from "./boot.js";
  import { createEmbeddedFileRegistry } from "../registry.js";
  import { restoreJsonNames } from "./restore-json-names.js";
  const enumOf = (text) => {
    const [name, ...values] = text.split(";");
    return { name, value: values.map((v) => ({ name: v.split(" ")[0], number: +v.split(" ")[1] })) };
  };
  const messageOf = ([text, nested, enums], prefix) => ({
    name: text.split(";")[0].replace("!", ""),
    field: text.split(";").slice(2).map((field) => {
      const [name, number, type, flags = ""] = field.split(" ");
      const made = { name, number: +number, type: parseInt(type), label: flags[0] === "r" ? 3 : 1 };
      if (type.includes(".")) made.typeName = prefix + type.slice(type.indexOf("."));
      if (flags.includes("p")) made.proto3Optional = true;
      if (/\\d/.test(flags)) made.oneofIndex = +flags.replace(/\\D/g, "");
      return made;
    }),
    nestedType: nested.map((m) => messageOf(m, prefix)),
    enumType: enums.map(enumOf),
  });
  const finish = (message, [text, nested]) => {
    const [name, oneofs] = text.split(";");
    message.oneofDecl = oneofs ? oneofs.split(" ").map((name) => ({ name })) : [];
    if (name[0] === "!") message.options = { mapEntry: true };
    message.nestedType.forEach((m, i) => finish(m, nested[i]));
  };
  export function shortFileDesc([name, packageName, messages, enums], imports = []) {
    const root = bootFileDescriptorProto({
      name,
      package: packageName,
      syntax: "proto3",
      dependency: imports.map((f) => f.proto.name),
      messageType: messages.map((m) => messageOf(m, "." + packageName)),
      enumType: enums.map(enumOf),
    });
    root.messageType.forEach((m, i) => finish(m, messages[i]));
    root.messageType.forEach(restoreJsonNames);
    const found = (wanted) => imports.find((f) => f.proto.name === wanted);
    return createEmbeddedFileRegistry(root, found).getFile(name);
  }`;

export const slimDescriptor = {
  name: "slim-descriptor",
  setup(build) {
    const resolveDir = dirname(fileURLToPath(import.meta.resolve("@bufbuild/protobuf/codegenv2")));
    build.onResolve({ filter: /^short-descriptor$/ }, () => ({ path: "reader", namespace: "short-descriptor", sideEffects: false }));
    build.onLoad({ filter: /.*/, namespace: "short-descriptor" }, () => ({ contents: reader, loader: "js", resolveDir }));
    build.onLoad({ filter: /\/src\/gen\/.*_pb\.ts$/ }, ({ path }) => ({
      contents:
        'import { shortFileDesc } from "short-descriptor";' +
        readFileSync(path, "utf8").replace(embedded, (_, base64) => `shortFileDesc(${fileText(base64)} as never`),
      loader: "ts",
    }));
  },
};
