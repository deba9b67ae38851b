/** The page's elements, and what it says above them. */

export const $ = (id) => document.getElementById(id);

/** Show what went wrong, or nothing any more; asks for the key where the server does. */
export function fail(error) {
  const wantsKey = error?.status === 401;
  if (wantsKey) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  $("error").hidden = !error || wantsKey;
  $("error").textContent = error?.message ?? "";
}

/** An element of a tag and class that holds strings and elements. */
export function element(tag, name, ...content) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...content);
  return made;
}
