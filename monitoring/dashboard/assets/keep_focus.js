// Gives the focus back to a link whose list is drawn anew. Dash replaces all elements of a part that changes, such as the
// list of runs when one of them moves, and the browser lets the focus go with the element that had it.
(() => {
  "use strict";
  let focused = null;

  document.addEventListener("focusin", (event) => {
    focused = event.target.closest("a[href]");
  });

  document.addEventListener("focusout", (event) => {
    // The reader has left the link, unless it is the page that loses it.
    setTimeout(() => {
      if (event.target === focused && event.target.isConnected) focused = null;
    });
  });

  new MutationObserver(() => {
    if (focused === null || focused.isConnected || document.activeElement !== document.body) return;
    const address = focused.getAttribute("href");
    const again = [...document.querySelectorAll("a[href]")].find((link) => link.getAttribute("href") === address);
    if (again) again.focus({ preventScroll: true });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
