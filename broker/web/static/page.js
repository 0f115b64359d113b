// Says so when the centre stops answering; everything else is done by the attributes in the page.
document.addEventListener("htmx:sendError", () => { lost(true); });
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.xhr.status > 0) lost(false); });

function lost(is) {
  const note = document.getElementById("lost");
  if (note) note.hidden = !is;
}
