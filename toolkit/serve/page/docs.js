"use strict";
// What openapi.json says, to be read.

const get = (id) => document.getElementById(id);

function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/** Prose, where what stands between backticks is code. */
const prose = (text) => (text ?? "").split("`").map((part, at) => (at % 2 ? make("code", part) : part));

const code = (text) => make("pre", make("code", text));
/** With numbers beside each other. */
const json = (tree) => code(JSON.stringify(tree, null, 2).replace(
  /\[\s+([-\d.,\s]+?)\s+\]/g, (_, numbers) => `[${numbers.replace(/\s+/g, " ")}]`));

function link(name) {
  const element = make("a", name);
  element.href = `#${name}`;
  return element;
}

// ---- types

const between = (parts, separator) => parts.flatMap((part, at) => (at ? [separator, ...part] : part));

/** A schema's type in a line, as what `make` takes; null is as good as nothing and not named. */
function typeOf(schema) {
  if (schema.$ref) return [link(schema.$ref.split("/").pop())];
  if (schema.anyOf) return between(schema.anyOf.filter((one) => one.type !== "null").map(typeOf), " or ");
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  if (schema.prefixItems) return ["[", ...between(schema.prefixItems.map(typeOf), ", "), "]"];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema.type === "object" && schema.additionalProperties?.type) {
    return ["object of ", ...typeOf(schema.additionalProperties)];
  }
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    return [`${schema.type} from ${schema.minimum} to ${schema.maximum}`];
  }
  return [schema.type ?? "any"];
}

const row = (name, schema, required, text) => make("tr",
  make("th", make("code", name)),
  make("td", ...typeOf(schema), required ? make("b", " required") : ""),
  make("td", ...prose(text), schema.default === undefined ? "" : ` Default: ${JSON.stringify(schema.default)}.`));

function table(rows) {
  const box = make("div", make("table", make("tbody", ...rows)));
  box.className = "wide";
  return box;
}

function fields(schema) {
  if (!schema.properties) return typeOf(schema).length ? [make("p", ...typeOf(schema))] : [];
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties).map(
    ([name, field]) => row(name, field, required.has(name), field.description));
  return [make("p", ...prose(schema.description)), table(rows)];
}

// ---- calls

const examplesOf = ({ example, examples }) =>
  example === undefined ? Object.values(examples ?? {}).map((one) => one.value ?? one) : [example];

/** A line for a shell; nothing in JSON's own signs ends its quotes but an apostrophe. */
function command(method, path, body) {
  const url = new URL(path.slice(1), location.href).href;
  if (body === undefined) return code(`curl ${url}`);
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  return code(`curl -X ${method.toUpperCase()} ${url} \\\n  -H "Content-Type: application/json" \\\n  -d '${quoted}'`);
}

function answers(responses) {
  const parts = [];
  const rows = Object.entries(responses).map(([status, response]) => {
    const content = Object.values(response.content ?? {})[0] ?? {};
    for (const example of examplesOf(content)) parts.push(make("h4", `For example, ${status}`), json(example));
    return make("tr", make("th", make("code", status)), make("td", ...typeOf(content.schema ?? {})),
      make("td", ...prose(response.description)));
  });
  return [make("h3", "Answers"), table(rows), ...parts];
}

function call(path, method, operation) {
  const body = Object.values(operation.requestBody?.content ?? {})[0];
  const [example] = body ? examplesOf(body) : [];
  const section = make("section", make("h2", make("b", method.toUpperCase()), ` ${path}`),
    make("p", ...prose(operation.description)));
  section.id = operation.operationId;
  if (operation.parameters?.length) {
    section.append(make("h3", "Parameters"), table(operation.parameters.map(
      (one) => row(`${one.name} (${one.in})`, one.schema ?? {}, one.required, one.description))));
  }
  if (body) section.append(make("h3", "Request, in JSON"), ...fields(body.schema));
  section.append(make("h4", "For example"), command(method, path, example), ...answers(operation.responses));
  return section;
}

function type(name, schema) {
  const section = make("section", make("h2", name), ...fields(schema));
  section.id = name;
  for (const example of examplesOf(schema)) section.append(make("h4", "For example"), json(example));
  return section;
}

function show(tree) {
  get("title").textContent = `${tree.info.title} ${tree.info.version}`;
  const calls = Object.entries(tree.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => call(path, method, operation)));
  // What the service is for comes first.
  calls.sort((a, b) => b.childElementCount - a.childElementCount);
  const types = Object.entries(tree.components?.schemas ?? {}).map(([name, schema]) => type(name, schema));
  const sections = [...calls, ...types];
  get("description").replaceChildren(...sections);
  get("contents").replaceChildren(...sections.map((section) => {
    const entry = link(section.id);
    entry.textContent = section.firstChild.textContent;
    return entry;
  }));
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("openapi.json").then((response) => response.json()).then(show).catch(() => {
  get("status").className = "error";
  get("status").textContent = "The description cannot be had from the service.";
});
