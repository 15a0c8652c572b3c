// Trades the token for a session's cookie, which scripts cannot read.
const form = document.getElementById("login");
const note = document.getElementById("note");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = document.getElementById("token");
  try {
    const answer = await fetch("/api/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: field.value }),
    });
    if (answer.ok) {
      location.replace("/" + location.hash);
      return;
    }
    note.textContent = answer.status === 401 ? "This is not the token." : "The page refused: " + answer.status;
  } catch {
    note.textContent = "The page does not answer.";
  }
  field.select();
});

// Where a link of another site led here, the browser did not send the cookie that it has.
fetch("/api/status").then((answer) => {
  if (answer.ok && location.pathname === "/") location.reload();
  else if (answer.ok) location.replace("/" + location.hash);
});
