/** Calls to `/api/v1`. Every failure becomes an `ApiError` with a code and a message that can be shown. */

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class Api {
  /** @param {() => string | null} token */
  constructor(token) {
    this._token = token;
  }

  /** The `data` of the answer. Raises `ApiError`; status 0 when the daemon can't be reached. */
  async call(method, path, body) {
    const headers = { Accept: "application/json" };
    const token = this._token();
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(`/api/v1${path}`, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: "omit",
      });
    } catch {
      throw new ApiError(0, "UNREACHABLE", "The daemon does not answer.");
    }
    let answer;
    try {
      answer = await response.json();
    } catch {
      throw new ApiError(response.status, "INTERNAL_ERROR", `The daemon answered ${response.status} without JSON.`);
    }
    if (!response.ok || answer.success === false) {
      const { code = "INTERNAL_ERROR", message = `The daemon answered ${response.status}.` } = answer.error ?? {};
      throw new ApiError(response.status, code, message);
    }
    return answer.data;
  }

  get(path) {
    return this.call("GET", path);
  }

  post(path, body = {}) {
    return this.call("POST", path, body);
  }

  delete(path) {
    return this.call("DELETE", path);
  }
}

/** Path segments and query values. */
export const segment = encodeURIComponent;
