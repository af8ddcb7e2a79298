// The login: trades the code of a `relay console` link, or an admin key, for a cookie that scripts cannot read.

const form = document.getElementById("form");
const key = document.getElementById("key");
const status = document.getElementById("status");
const submit = form.querySelector("button");

const LOCAL = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/;

function show(text, isError = false) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

/** Where to go once signed in: the page that asked for it, else the recordings. */
function goOn() {
  if (location.pathname.endsWith("/login")) location.replace("recordings");
  else location.reload();
}

async function signIn(credential) {
  submit.disabled = true;
  show("Signing in…");
  try {
    const response = await fetch("login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(credential),
    });
    if (response.ok) {
      goOn();
      return;
    }
    const { error } = await response.json().catch(() => ({}));
    show(error ?? `The relay answered ${response.status}.`, true);
  } catch {
    show("The relay does not answer. Is it running?", true);
  } finally {
    submit.disabled = false;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn({ key: key.value });
});

if (location.protocol === "http:" && !LOCAL.test(location.hostname)) {
  show("Signing in needs https here: browsers do not keep the login otherwise.", true);
  submit.disabled = true;
} else {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", location.pathname); // the code is used up; it need not stay in the history
    signIn({ code });
  } else {
    key.focus();
  }
}
