/** What fills holes: here the server that this page comes from. The page without a server has another one. */

export * from "./service.js";
