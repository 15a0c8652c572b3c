// Asks the server. Everything that it says is text, and is only ever shown as text.
export class Refused extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

export async function ask(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  if (answer.status === 401) location.replace("/login" + location.hash);
  let error = { type: "unknown", message: `the server answered ${answer.status}` };
  try {
    error = (await answer.json()).error;
  } catch {
    // Of a proxy, or cut off: the status has to do.
  }
  throw new Refused(answer.status, error.type, error.message);
}

export const cameraPath = (name, what = "") => `/api/cameras/${encodeURIComponent(name)}${what}`;
