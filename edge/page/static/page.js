// Sends a file and waits for its study; turns the heat on and off. Without this the list and the studies still work.
document.documentElement.classList.add("js");

const box = document.getElementById("send");
const field = document.getElementById("file");
const note = document.getElementById("sending");

function say(text, bad = false) {
  note.hidden = !text;
  note.textContent = text;
  note.classList.toggle("problem", bad);
}

async function send(file) {
  field.disabled = true;
  say(box.dataset.sending);
  try {
    const answer = await fetch("/uploads?name=" + encodeURIComponent(file.name), { method: "POST", body: file });
    if (answer.status === 401) { location.href = "/login"; return; }
    const told = await answer.json();
    if (answer.status !== 201) { say(box.dataset.failed.replace("%", told.reason), true); return; }
    say(box.dataset.reading);
    await follow(told.intake);
  } catch {
    say(box.dataset.lost, true);
  } finally {
    field.disabled = false;
    field.value = "";
  }
}

async function follow(intake) {
  for (let i = 0; i < 120; i++) {
    const { study } = await (await fetch("/uploads/" + intake)).json();
    if (study) { location.href = "/studies/" + study; return; }
    await new Promise((done) => setTimeout(done, i < 20 ? 150 : 500));
  }
  say(box.dataset.slow);
}

if (box) {
  field.addEventListener("change", () => { if (field.files.length) send(field.files[0]); });
  for (const kind of ["dragover", "dragenter"]) {
    box.addEventListener(kind, (event) => { event.preventDefault(); box.classList.add("over"); });
  }
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    box.classList.remove("over");
    if (event.dataTransfer.files.length && !field.disabled) send(event.dataTransfer.files[0]);
  });
}

const film = document.getElementById("film");
const choices = document.querySelectorAll("[data-film]");
for (const choice of choices) {
  choice.addEventListener("click", () => {
    film.src = choice.dataset.film;
    for (const other of choices) other.setAttribute("aria-pressed", String(other === choice));
  });
}

document.getElementById("language")?.addEventListener("change", (event) => event.target.form.submit());
document.getElementById("print")?.addEventListener("click", () => window.print());
